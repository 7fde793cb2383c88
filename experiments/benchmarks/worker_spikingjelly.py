"""SpikingJelly's side of peers.py; runs in SpikingJelly's virtual environment."""

import json
import sys
from importlib import metadata

import torch
from serve import serve
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.model.spikformer import spikformer_cifar10


def main():
    arguments = json.loads(sys.argv[1])
    torch.manual_seed(0)
    model = spikformer_cifar10(T=arguments["time_steps"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images = torch.randn(arguments["batch_size"], 3, 32, 32)
    labels = torch.randint(0, 10, (arguments["batch_size"],))
    parameters = sum(p.numel() for p in model.parameters())

    def evaluation():
        model.eval()
        with torch.inference_mode():
            model(images)
        functional.reset_net(model)

    def train():
        model.train()
        optimizer.zero_grad()
        logits = model(images)
        logits = logits.mean(0) if logits.ndim == 3 else logits
        torch.nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        functional.reset_net(model)

    about = (
        f"spikingjelly {metadata.version('spikingjelly')}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {parameters:,} parameters"
    )
    serve(about, {"evaluation": evaluation, "training": train})


if __name__ == "__main__":
    main()
