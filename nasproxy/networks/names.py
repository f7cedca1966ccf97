"""What the networks of the paper are called; nothing is loaded to say so."""

NETWORKS = {
    "mlp": "MLP",
    "convnet": "ConvNet",
    "lenet": "LeNet",
    "alexnet": "AlexNet",
    "vgg11": "VGG-11",
    "resnet18": "ResNet-18",
}
"""The name that options take, and the one that readers know; in the paper's order."""
CONVNET = "convnet"
"""The default."""
