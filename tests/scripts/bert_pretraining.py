"""BERT from scratch: masked words and the next sentence, with segment embeddings."""

import random

import numpy as np
import torch
import torch.nn as nn
import torch.optim as optim
from torch.utils.data import DataLoader, Dataset

SEED = 1234
random.seed(SEED)
np.random.seed(SEED)
torch.manual_seed(SEED)
torch.cuda.manual_seed_all(SEED)
torch.backends.cudnn.deterministic = True

use_cuda = torch.cuda.is_available()
device = torch.device("cuda" if use_cuda else "cpu")

PAD, CLS, SEP, MASK, UNK = 0, 1, 2, 3, 4
VOCAB = 40


class Corpus(Dataset):
    """Pairs of sentences; sentence B continues A, or is from elsewhere."""

    def __init__(self, n, seq_len):
        self.seq_len = seq_len
        self.lines = []
        for _ in range(n):
            start = random.randrange(5, VOCAB)
            length = random.randint(3, 5)
            a = [(start + i - 5) % (VOCAB - 5) + 5 for i in range(length)]
            b = [(start + length + i - 5) % (VOCAB - 5) + 5 for i in range(length)]
            self.lines.append((a, b))

    def __len__(self):
        return len(self.lines)

    def random_word(self, sentence):
        tokens, output_label = list(sentence), []
        for i, token in enumerate(tokens):
            prob = random.random()
            if prob < 0.15:
                prob /= 0.15
                if prob < 0.8:
                    tokens[i] = MASK
                elif prob < 0.9:
                    tokens[i] = random.randrange(VOCAB)
                output_label.append(token)
            else:
                output_label.append(0)
        return tokens, output_label

    def __getitem__(self, item):
        t1, t2 = self.lines[item]
        is_next = 1
        if random.random() > 0.5:
            t2 = self.lines[random.randrange(len(self.lines))][1]
            is_next = 0
        t1, l1 = self.random_word(t1)
        t2, l2 = self.random_word(t2)
        t1, t2 = [CLS] + t1 + [SEP], t2 + [SEP]
        l1, l2 = [PAD] + l1 + [PAD], l2 + [PAD]
        segment_label = ([1 for _ in range(len(t1))] + [2 for _ in range(len(t2))])[: self.seq_len]
        bert_input = (t1 + t2)[: self.seq_len]
        bert_label = (l1 + l2)[: self.seq_len]
        padding = [PAD for _ in range(self.seq_len - len(bert_input))]
        bert_input.extend(padding), bert_label.extend(padding), segment_label.extend(padding)
        output = {
            "bert_input": bert_input,
            "bert_label": bert_label,
            "segment_label": segment_label,
            "is_next": is_next,
        }
        return {key: torch.tensor(value) for key, value in output.items()}


class SegmentEmbedding(nn.Embedding):
    def __init__(self, embed_size=512):
        super().__init__(3, embed_size, padding_idx=0)


class BERTEmbedding(nn.Module):
    def __init__(self, vocab_size, max_len, embed_size, dropout=0.1):
        super().__init__()
        self.token = nn.Embedding(vocab_size, embed_size, padding_idx=0)
        self.position = nn.Embedding(max_len, embed_size)
        self.segment = SegmentEmbedding(embed_size)
        self.norm = nn.LayerNorm(embed_size, eps=1e-12)
        self.dropout = nn.Dropout(p=dropout)
        self.register_buffer(
            "position_ids", torch.arange(max_len).expand((1, -1)), persistent=False
        )

    def forward(self, sequence, segment_label):
        x = self.token(sequence)
        x += self.position(self.position_ids[:, : sequence.size(1)])
        x += self.segment(segment_label)
        return self.dropout(self.norm(x))


class BERT(nn.Module):
    def __init__(self, vocab_size, max_len=16, hidden=32, n_layers=2, attn_heads=4, dropout=0.1):
        super().__init__()
        self.hidden = hidden
        self.embedding = BERTEmbedding(vocab_size, max_len, hidden, dropout)
        encoder_layer = nn.TransformerEncoderLayer(
            d_model=hidden,
            nhead=attn_heads,
            dim_feedforward=hidden * 4,
            dropout=dropout,
            activation="gelu",
            batch_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            encoder_layer, num_layers=n_layers, enable_nested_tensor=False
        )
        self.pooler = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh())

    def forward(self, x, segment_info):
        pad_mask = x.eq(0)
        x = self.embedding(x, segment_info)
        x = self.encoder(x, src_key_padding_mask=pad_mask)
        return x, self.pooler(x[:, 0])


class BERTLM(nn.Module):
    """Next Sentence Prediction Model + Masked Language Model"""

    def __init__(self, bert, vocab_size):
        super().__init__()
        self.bert = bert
        self.next_sentence = nn.Linear(bert.hidden, 2)
        self.transform = nn.Sequential(
            nn.Linear(bert.hidden, bert.hidden), nn.GELU(), nn.LayerNorm(bert.hidden)
        )
        self.decoder = nn.Linear(bert.hidden, vocab_size, bias=False)
        self.decoder.weight = bert.embedding.token.weight
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.softmax = nn.LogSoftmax(dim=-1)

    def forward(self, x, segment_label):
        x, pooled = self.bert(x, segment_label)
        return self.softmax(self.next_sentence(pooled)), self.softmax(
            self.decoder(self.transform(x)) + self.bias
        )


class ScheduledOptim:
    """A simple wrapper class for learning rate scheduling"""

    def __init__(self, optimizer, d_model, n_warmup_steps):
        self._optimizer = optimizer
        self.n_warmup_steps = n_warmup_steps
        self.n_current_steps = 0
        self.init_lr = np.power(d_model, -0.5)

    def step_and_update_lr(self):
        self._update_learning_rate()
        self._optimizer.step()

    def zero_grad(self):
        self._optimizer.zero_grad()

    def _get_lr_scale(self):
        return np.min(
            [
                np.power(self.n_current_steps, -0.5),
                np.power(self.n_warmup_steps, -1.5) * self.n_current_steps,
            ]
        )

    def _update_learning_rate(self):
        self.n_current_steps += 1
        lr = self.init_lr * self._get_lr_scale()
        for param_group in self._optimizer.param_groups:
            param_group["lr"] = lr


def init_weights(module):
    if isinstance(module, (nn.Linear, nn.Embedding)):
        module.weight.data.normal_(mean=0.0, std=0.1)
    elif isinstance(module, nn.LayerNorm):
        module.bias.data.zero_()
        module.weight.data.fill_(1.0)
    if isinstance(module, nn.Linear) and module.bias is not None:
        module.bias.data.zero_()


class BERTTrainer:
    def __init__(self, bert, vocab_size, train_dataloader, with_cuda=True, log_freq=4):
        cuda_condition = torch.cuda.is_available() and with_cuda
        self.device = torch.device("cuda:0" if cuda_condition else "cpu")
        self.model = BERTLM(bert, vocab_size).to(self.device)
        self.model.apply(init_weights)
        if with_cuda and torch.cuda.device_count() > 1:
            print("Using %d GPUS for BERT" % torch.cuda.device_count())
            self.model = nn.DataParallel(self.model)
        self.train_data = train_dataloader
        self.optim = optim.Adam(
            self.model.parameters(), lr=1e-4, betas=(0.9, 0.999), weight_decay=0.01
        )
        self.optim_schedule = ScheduledOptim(self.optim, bert.hidden, n_warmup_steps=20)
        self.criterion = nn.NLLLoss(ignore_index=0)
        self.nsp_criterion = nn.NLLLoss()
        self.log_freq = log_freq
        print("Total Parameters:", sum([p.nelement() for p in self.model.parameters()]))

    def train(self, epoch):
        self.iteration(epoch, self.train_data)

    def iteration(self, epoch, data_loader, train=True):
        str_code = "train" if train else "test"
        avg_loss, total_correct, total_element = 0.0, 0, 0
        for i, data in enumerate(data_loader):
            data = {key: value.to(self.device) for key, value in data.items()}
            next_sent_output, mask_lm_output = self.model.forward(
                data["bert_input"], data["segment_label"]
            )
            next_loss = self.nsp_criterion(next_sent_output, data["is_next"])
            mask_loss = self.criterion(mask_lm_output.transpose(1, 2), data["bert_label"])
            loss = next_loss + mask_loss
            if train:
                self.optim_schedule.zero_grad()
                loss.backward()
                self.optim_schedule.step_and_update_lr()
            correct = next_sent_output.argmax(dim=-1).eq(data["is_next"]).sum().item()
            avg_loss += loss.item()
            total_correct += correct
            total_element += data["is_next"].nelement()
            post_fix = {
                "epoch": epoch,
                "iter": i,
                "avg_loss": round(avg_loss / (i + 1), 3),
                "avg_acc": round(total_correct / total_element * 100, 2),
                "loss": round(loss.item(), 3),
            }
            if i % self.log_freq == 0:
                print(str(post_fix))
        print("EP%d_%s, avg_loss=%.3f" % (epoch, str_code, avg_loss / len(data_loader)))


train_dataset = Corpus(192, seq_len=14)
train_data_loader = DataLoader(
    train_dataset, batch_size=16, num_workers=0, shuffle=True, drop_last=True
)
bert = BERT(VOCAB)
trainer = BERTTrainer(bert, VOCAB, train_data_loader)
for epoch in range(2):
    trainer.train(epoch)
bert.eval()
with torch.no_grad():
    batch = next(iter(train_data_loader))
    hidden, pooled = bert(batch["bert_input"], batch["segment_label"])
print(hidden.shape, pooled.size(), round(pooled.abs().mean().item(), 3))
print([name for name, _ in bert.named_buffers()], len(bert.state_dict()))
