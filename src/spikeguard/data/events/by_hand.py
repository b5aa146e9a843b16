"""Where to get the event data sets, none of which has a lasting address of its files."""

from __future__ import annotations

__all__ = ["BY_HAND"]

BY_HAND = {
    "nmnist": (
        "get Train.zip and Test.zip from https://www.garrickorchard.com/datasets/n-mnist and "
        "unpack both into N-MNIST/ in the data folder (N-MNIST/Train/0/00002.bin ...)."
    ),
    "dvs-gesture": (
        "get DvsGesture.tar.gz from https://research.ibm.com/interactive/dvsgesture and unpack it "
        "in the data folder (DvsGesture/trials_to_train.txt, DvsGesture/user01_led.aedat ...)."
    ),
    "cifar10-dvs": (
        "get the ten class archives from https://figshare.com/articles/dataset/4724671 and unpack "
        "them into CIFAR10-DVS/ in the data folder (CIFAR10-DVS/airplane/*.aedat ...)."
    ),
}
