"""Where to get the data sets whose files have no address from which they can be fetched."""

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
    "imagenet": (
        "get the training and validation images of ILSVRC2012 from https://image-net.org (an "
        "account is needed) and unpack them into imagenet/ in the data folder "
        "(imagenet/train/n01440764/*.JPEG, imagenet/val/n01440764/*.JPEG)."
    ),
}
