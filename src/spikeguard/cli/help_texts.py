"""What every command says of itself in --help: one line, and calls as examples."""

__all__ = ["DATA", "EXAMPLES", "HELP", "LAUNCH", "MAPS"]

EXAMPLES = {
    "demo": ["demo", "demo --quick --out runs/first-look"],
    "train": [
        "train demo/tgo",
        "train demo/tgo objective.tgo.lambda_max=10 --out runs/mine",
        "train my-recipe.yaml --out runs/mine --resume",
        "train demo/vanilla --data photos --out runs/photos",
        "train demo/tgo --log tensorboard",
    ],
    "attack": [
        "attack runs/mine --suite papers,snn --eps 2/255,8/255",
        "attack runs/mine --suite snn --limit 500 --jobs 4",
        "attack runs/mine --suite snn --rescore",
        "attack runs/mine --suite papers --seed 1 --json",
        "attack --model my_nets:net --weights net.pt --T 4 --data mnist --suite snn --eps 0.1",
        "attack runs/mine --data CIFAR-10-C/fog.npy --suite snn-short --limit 500",
        "attack --model nir:runs/mine/export/mine.nir --data digits --transfer runs/mine",
    ],
    "export": [
        "export runs/mine --to nir",
        "export runs/mine --to nir --weights 8 --per channel --threshold-grid 0.25",
        "export runs/demo/tgo --to nir --noise off",
        "export runs/mine --to onnx --out mine.onnx",
    ],
    "audit": [
        "audit runs/mine --quick",
        "audit runs/mine --eps 8/255 --strict",
        "audit runs/mine --attack pgd20 --max-gap 1",
        "audit runs/mine --strict --min-robust 40 --json",
        'audit runs/mine --printed 62.3 --protocol "PGD-20 8/255, n 1000"',
    ],
    "certify": [
        "certify runs/mine --sigma 0.25",
        "certify runs/mine --sigma 0.25 --n 10000 --limit 500",
        "certify runs/mine --sigma 0.25 --attack 0.1,0.25 --json",
    ],
    "analyse": [
        "analyse runs/mine",
        "analyse runs/demo/vanilla runs/demo/tgo zeros",
        'analyse runs/mine "zeros limit=64" --json',
    ],
    "report": [
        "report runs/mine",
        "report runs/demo/vanilla runs/demo/tgo --out compare.html",
        "report runs/mine --tables runs/mine/tables",
    ],
    "bench": ["bench --quick", "bench --networks cnn-t10,wrn-t4 --threads 1"],
    "reproduce": ["reproduce mini", "reproduce mini --only cifar10-at --seeds 0,1,2 --jobs 2"],
    "sweep": [
        "sweep demo/vanilla neuron.v_th=0.5:1.5:5 --maximise accuracy",
        "sweep demo/tgo neuron.sigma=0.1,0.3 --maximise robust:snn@0.1",
        "sweep demo/tgo neuron.sigma=0.1:1:9 --trials 5 --maximise accuracy",
        "sweep my.yaml train.lr=1e-4:1e-1:4:log --maximise val_accuracy",
        "sweep my.yaml train.lr=0.1,1 --maximise accuracy --budget 8h",
    ],
    "list": ["list", "list neurons", "list recipes tgo/", "list suites --json"],
}
HELP = {
    "demo": "Train, attack and audit four small networks on embedded digits; write a report.",
    "train": "Train the network of a recipe.",
    "attack": "Attack a trained run or a foreign network; print the accuracy under attack.",
    "audit": "Judge the number that a paper would print, and the bound from all attacks.",
    "certify": "Certify radii of the network under noise; attack the same classifier beside them.",
    "analyse": "Measure potentials, gradients, landscapes, synchrony, activity and cost.",
    "export": "Write the network of a run to a NIR or ONNX file, and verify the file.",
    "report": "Write one self-contained HTML page about one run or several.",
    "bench": "Measure time and memory beside other libraries.",
    "reproduce": "Train and attack every recipe of a folder at several seeds; print one table.",
    "sweep": "Train and measure a recipe at many values of its fields.",
    "list": "List the names that recipes and commands take.",
}
MAPS = [
    "map demo/vanilla --x neuron.tau=1.1:4:5 --y neuron.v_th=0.1:2:5",
    "map demo/tgo --x neuron.v_th=0.5:2:4 --y neuron.sigma=0.1:1:4",
    "map my.yaml --x neuron.tau=2,4 --y neuron.v_th=1,2 --robust snn@0.1",
    "map my.yaml --x neuron.v_th=1,2 --y train.lr=0.1,1 --steps 500",
]
LAUNCH = {
    "torchrun": (
        "Print the torchrun command that runs a command in several processes.",
        "launch torchrun --processes 4 -- train demo/at --out runs/at",
    ),
    "slurm": (
        "Print or submit the SLURM script that runs a command.",
        "launch slurm --array 8 --cpus 4 -- attack runs/at --suite snn",
    ),
}
DATA = {
    "download": ("Fetch a data set from its official source.", "data download cifar10"),
    "check": (
        "Read the data sets on this machine; report what is missing or changed.",
        "data check mnist",
    ),
}
