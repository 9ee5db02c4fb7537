"""
Train a small classifier on every process of the job.

Under torchrun:  torchrun --nproc_per_node=2 distributed_training.py
"""

import os

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


def setup():
    if "RANK" in os.environ:
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend=backend)
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return 0, 1


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(8, 32)
        self.bn = nn.BatchNorm1d(32)
        self.fc2 = nn.Linear(32, 3)

    def forward(self, x):
        return self.fc2(F.relu(self.bn(self.fc1(x))))


def main():
    rank, world_size = setup()
    torch.manual_seed(1 + rank)
    model = Net()
    if world_size > 1:
        model = DDP(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(70, 8, generator=generator)
    y = (x.sum(1) > 0).long() + (x[:, 0] > 1).long()
    dataset = TensorDataset(x, y)
    sampler = None
    if world_size > 1:
        sampler = DistributedSampler(dataset, num_replicas=world_size, rank=rank, shuffle=True)
    loader = DataLoader(dataset, batch_size=12, sampler=sampler, shuffle=sampler is None)
    for epoch in range(3):
        if sampler is not None:
            sampler.set_epoch(epoch)
        total = torch.zeros(2)
        for step, (inputs, targets) in enumerate(loader):
            if world_size > 1:
                model.require_backward_grad_sync = step % 2 == 1
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            total += torch.tensor([loss.item() * len(inputs), len(inputs)])
            if step % 2 == 1:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
        if world_size > 1:
            dist.all_reduce(total, op=dist.ReduceOp.SUM)
        if rank == 0:
            print(
                f"epoch {epoch}: loss {total[0].item() / total[1].item():.4f} over {int(total[1])}"
            )
    if rank == 0:
        norm = sum(p.detach().double().pow(2).sum() for p in model.parameters()).sqrt()
        print(f"{list(model.state_dict())[0]}, norm {norm.item():.4f}")
    if world_size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
