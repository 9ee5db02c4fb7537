"""Data sets, samplers, workers, splits and collation."""

import math
import os
import random
from typing import Any, Dict, List, Tuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
    random_split,
)
from torch.utils.data.dataloader import default_collate as old_default_collate


def set_seed(seed: int = 42) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)
    # When running on the CuDNN backend, two further options must be set
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
    os.environ["PYTHONHASHSEED"] = str(seed)
    print(f"Random seed set as {seed}")


def seed_worker(worker_id):
    worker_seed = torch.initial_seed() % 2**32
    np.random.seed(worker_seed)
    random.seed(worker_seed)


class SentenceDataset(Dataset[Tuple[Tensor, int]]):
    def __init__(self, n: int, transform=None) -> None:
        self.sentences = [torch.randint(1, 30, (int(k),)) for k in torch.randint(2, 8, (n,))]
        self.labels = [int(s.sum()) % 2 for s in self.sentences]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, idx):
        if torch.is_tensor(idx):
            idx = idx.tolist()
        sentence = self.sentences[idx]
        if self.transform:
            sentence = self.transform(sentence)
        return sentence, self.labels[idx]


class DictDataset(Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i) -> Dict[str, Any]:
        return {
            "id": i,
            "value": np.float64(i) / 4,
            "image": np.full((2, 2), i, dtype=np.float32),
            "name": f"item{i}",
            "pair": (i, torch.tensor([i, i + 1])),
            "flag": i % 2 == 0,
        }


class Stream(IterableDataset):
    def __init__(self, start, end):
        super().__init__()
        self.start, self.end = start, end

    def __iter__(self):
        worker_info = get_worker_info()
        if worker_info is None:  # single-process data loading, return the full iterator
            return iter(range(self.start, self.end))
        # in a worker process, split workload
        per_worker = math.ceil((self.end - self.start) / worker_info.num_workers)
        start = self.start + worker_info.id * per_worker
        return iter(range(start, min(start + per_worker, self.end)))


class Noisy(Dataset):
    """Augments with all of the random number generators there are."""

    def __len__(self):
        return 6

    def __getitem__(self, i):
        info = get_worker_info()
        worker = (-1, 0) if info is None else (info.id, info.num_workers)
        return i, *worker, random.random(), np.random.rand(), torch.rand(1), torch.randn(2)


def worker_init_fn(worker_id):
    worker_info = torch.utils.data.get_worker_info()
    dataset = worker_info.dataset  # the dataset copy in this worker process
    dataset.start, dataset.end = dataset.start + 10 * worker_id, dataset.end + 10 * worker_id


def collate_batch(batch: List[Tuple[Tensor, int]]):
    batch = sorted(batch, key=lambda item: len(item[0]), reverse=True)
    tokens, labels = zip(*batch)
    lengths = torch.tensor([len(t) for t in tokens])
    padded = pad_sequence(tokens, batch_first=True, padding_value=0)
    return padded, torch.tensor(labels, dtype=torch.float), lengths


class Collate:
    def __init__(self, pad_idx):
        self.pad_idx = pad_idx

    def __call__(self, batch):
        tokens = pad_sequence(
            [item[0] for item in batch], batch_first=False, padding_value=self.pad_idx
        )
        mask = tokens.ne(self.pad_idx)
        return {
            "tokens": tokens,
            "mask": mask,
            "labels": torch.LongTensor([item[1] for item in batch]),
        }


class ByLength(Sampler[int]):
    def __init__(self, data_source: SentenceDataset) -> None:
        self.data_source = data_source

    def __iter__(self):
        lengths = [len(s) for s in self.data_source.sentences]
        return iter(sorted(range(len(lengths)), key=lambda i: (lengths[i], i)))

    def __len__(self):
        return len(self.data_source)


def main():
    set_seed(42)
    dataset = SentenceDataset(23, transform=lambda s: s.clamp(max=25))
    train_size = int(0.8 * len(dataset))
    train_set, valid_set = random_split(dataset, [train_size, len(dataset) - train_size])
    print(type(train_set).__name__, len(train_set), len(valid_set), valid_set.indices)
    a, b, c = random_split(range(10), [0.5, 0.3, 0.2], generator=torch.Generator().manual_seed(42))
    print(list(a), list(b), list(c))

    g = torch.Generator()
    g.manual_seed(0)
    loader = DataLoader(
        train_set,
        batch_size=4,
        shuffle=True,
        num_workers=2,
        collate_fn=collate_batch,
        worker_init_fn=seed_worker,
        generator=g,
        pin_memory=torch.cuda.is_available(),
        drop_last=False,
        persistent_workers=True,
        prefetch_factor=2,
    )
    for epoch in range(2):
        for padded, labels, lengths in loader:
            print(epoch, padded.shape, padded.sum().item(), labels.tolist(), lengths.tolist())
    packed = pack_padded_sequence(padded, lengths, batch_first=True)
    print(packed.batch_sizes, pad_packed_sequence(packed, batch_first=True)[1])

    for batch in DataLoader(
        dataset, batch_size=8, sampler=ByLength(dataset), collate_fn=Collate(0), num_workers=1
    ):
        print(batch["tokens"].shape, batch["mask"].sum(0).tolist(), batch["labels"])

    for batch in DataLoader(DictDataset(5), batch_size=2, drop_last=True):
        print({k: (v.dtype, tuple(v.shape)) if torch.is_tensor(v) else v for k, v in batch.items()})
    print(default_collate is old_default_collate, default_collate([(1, 2.5), (3, 4.5)]))

    x, y = torch.arange(12.0).view(6, 2), torch.arange(6)
    tensors = TensorDataset(x, y)
    weights = torch.tensor([0.1, 0.1, 0.1, 5.0, 5.0, 0.1], dtype=torch.double)
    weighted = WeightedRandomSampler(weights, num_samples=8, replacement=True)
    for xb, yb in DataLoader(tensors, batch_size=4, sampler=weighted):
        print(yb, xb.mean(0))
    print(list(BatchSampler(SequentialSampler(range(7)), batch_size=3, drop_last=False)))
    print(
        list(RandomSampler(range(7), replacement=True, num_samples=5)),
        list(RandomSampler(range(7))),
    )
    both = ConcatDataset([Subset(tensors, [0, 2]), tensors])
    print(len(both), both[1], both[-1][1])
    print([batch.tolist() for batch in DataLoader(Stream(0, 7), batch_size=3)])
    for workers, init in ((2, None), (3, worker_init_fn)):
        stream = DataLoader(Stream(0, 10), batch_size=2, num_workers=workers, worker_init_fn=init)
        print([batch.tolist() for batch in stream])
    for settings in (
        dict(),
        dict(num_workers=2),
        dict(num_workers=2, persistent_workers=True),
        dict(num_workers=2, worker_init_fn=seed_worker),
    ):
        noisy = DataLoader(Noisy(), batch_size=2, shuffle=True, **settings)
        for epoch in range(2):
            for i, worker, count, a, b, c, d in noisy:
                print(epoch, i, worker, count, a, b, c.flatten(), d)
    print(random.random(), np.random.rand(), torch.rand(1))
    it = iter(DataLoader(tensors, batch_size=5, shuffle=True))
    while True:
        try:
            xb, yb = next(it)
        except StopIteration:
            break
        print(yb.size(0), sorted(yb.tolist()))
    print(torch.rand(3))


if __name__ == "__main__":
    main()
