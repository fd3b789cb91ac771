"""The one training loop: objective + sampler + schedule -> checkpoints.

The loop knows ``Batch`` and ``Objective``, and no method by name. Everything random about step ``t`` follows
from (seed, t), so a checkpoint needs no generator state, and a resumed run repeats an uninterrupted one
exactly.

Several processes may train together (``vemseg.ranks``). All of them take the same steps; the first one alone
reports, draws and saves. A checkpoint does not know how many there were.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vemseg import drawing, ranks
from vemseg.batch import Batch, Batches
from vemseg.context import Context
from vemseg.errors import InputError, ResourceError, UsageError, VemsegError
from vemseg.models import save_encoder
from vemseg.models.devices import wants_bf16
from vemseg.models.layers import choose_attention
from vemseg.models.objective import Objective, Preview, step_generator
from vemseg.recipe import TrainTable
from vemseg.run import Json, Run, load_tensors, save_tensors
from vemseg.sampling import whole_batch

PREVIEWS = 6
"""Number of samples in a picture of reconstructions."""
SMOOTHING = 0.8
"""How much the curve of the loss is smoothed; each point is already a mean over ``train.log_every`` steps."""
VALIDATE_EVERY = 10
"""The objective is examined on held-out data once in this many lines of metrics."""
VALIDATION_BATCHES = 4
"""Number of held-out batches that the objective is examined on; the same ones every time."""


class MasterAdamW:
    """AdamW that keeps a float32 master copy of every parameter held in a shorter type.

    A parameter in float32 is its own master. Weights in bfloat16 make every product of a step fast, but the
    small updates of a learning rate such as 1e-4 would vanish in 8 bits, so they are added up in float32.

    Parameters
    ----------
    module : nn.Module
        Its trainable parameters are optimised.
    settings : TrainTable
        Betas, eps, weight decay and AMSGrad. Norms and biases decay too, as in the reference code of MAESTER,
        unless ``decay_vectors`` is off, as in that of SdAE. Gradients longer than ``clip`` are shortened to
        that norm, unless it is 0.
    dtype : torch.dtype, optional
        The type of numbers that the module is brought to. Masters keep the weights as they were before.
    """

    def __init__(self, module: nn.Module, settings: TrainTable, dtype: torch.dtype | None = None) -> None:
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in named]
        self.parameters: list[Tensor] = [p for _, p in named]
        exact = [p.detach().float() for p in self.parameters]
        if dtype is not None:
            module.to(dtype)
        pairs = zip(self.parameters, exact, strict=True)
        self.masters = [p if p.dtype == torch.float32 else before for p, before in pairs]
        spared = [master for master in self.masters if not settings.decay_vectors and master.ndim <= 1]
        kept = [master for master in self.masters if settings.decay_vectors or master.ndim > 1]
        groups: list[dict[str, object]] = [{"params": kept}, {"params": spared, "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=0.0,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            amsgrad=settings.amsgrad,
            fused=True,
        )
        self.clip = settings.clip

    def step(self, lr: float) -> None:
        """Apply the gradients of the parameters and clear them."""
        for group in self.adamw.param_groups:
            group["lr"] = lr
        short = [pair for pair in zip(self.masters, self.parameters, strict=True) if pair[0] is not pair[1]]
        for master, parameter in short:
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        if self.clip:
            nn.utils.clip_grad_norm_(self.masters, self.clip)
        self.adamw.step()
        self.adamw.zero_grad()
        if short:
            with torch.no_grad():
                torch._foreach_copy_([parameter for _, parameter in short], [master for master, _ in short])

    def state(self) -> dict[str, Tensor]:
        """Return masters and moments by name, float32."""
        tensors = {f"master.{name}": master for name, master in zip(self.names, self.masters, strict=True)}
        for name, master in zip(self.names, self.masters, strict=True):
            for key, value in self.adamw.state[master].items():
                tensors[f"{key}.{name}"] = value
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore the masters and moments that :meth:`state` returned."""
        moments = ["step", "exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * self.adamw.defaults["amsgrad"]
        with torch.no_grad():
            for name, master, parameter in zip(self.names, self.masters, self.parameters, strict=True):
                master.copy_(tensors[f"master.{name}"])
                parameter.copy_(master)
                if f"step.{name}" in tensors:
                    self.adamw.state[master] = {
                        key: _laid_out(tensors[f"{key}.{name}"], master) for key in moments
                    }


def _laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """Copy to another tensor's device and memory layout, which the fused kernel takes for granted."""
    if tensor.shape != like.shape:
        return tensor.to(like.device, copy=True)
    return torch.empty_like(like).copy_(tensor)


def learning_rate(settings: TrainTable, fraction: float) -> float:
    """Return the rate when a fraction of the run is done: linear warm-up, then constant or half a cosine."""
    if fraction < settings.warmup:
        return settings.lr * fraction / settings.warmup
    if settings.schedule == "constant":
        return settings.lr
    part = (fraction - settings.warmup) / max(1.0 - settings.warmup, 1e-9)
    return settings.min_lr + (settings.lr - settings.min_lr) * 0.5 * (
        1 + float(np.cos(np.pi * min(part, 1.0)))
    )


def refuse_undivided(objective: Objective, batch: int) -> None:
    """Refuse what several processes cannot train together.

    Raises
    ------
    UsageError
        Where the objective does not divide its work, or a batch cannot be divided among them.
    """
    count = ranks.here().count
    if count > 1 and not objective.divides:
        raise UsageError(f"this is trained by one process, not by {count}: start it without torchrun")
    if batch % count:
        raise UsageError(
            f"{count} processes cannot share a batch of {batch}: give a --batch-size that is a multiple"
        )


class Trainer:
    """Train an objective on the batches of a sampler and leave checkpoints in a run directory.

    Parameters
    ----------
    objective : Objective
        Already on its device, in float32.
    sampler : Batches
        Where batches come from.
    run : Run
        Where checkpoints, metrics and pictures go; a checkpoint found there is resumed.
    settings : TrainTable
        Steps, batch, schedule, precision, seed.
    limit : float, optional
        Seconds of training, including those before a resume; the schedule ends with it. What the sampler
        prepares does not count.
    held : Batches, optional
        Held-out data that the objective's ``validate`` is called on from time to time. What its ``scores``
        makes of the means over a few batches is written to the metrics, each under its name with ``held_``
        before it.
    """

    def __init__(
        self,
        objective: Objective,
        sampler: Batches,
        run: Run,
        settings: TrainTable,
        limit: float | None = None,
        held: Batches | None = None,
    ) -> None:
        self.objective, self.sampler, self.run = objective, sampler, run
        self.settings, self.limit, self.held = settings, limit, held
        self.step, self.elapsed = 0, 0.0
        self._scalars: dict[str, list[Tensor]] = {}  # since the last report, by name
        choose_attention(objective, sampler.device, training=True)
        short = objective.shortens and wants_bf16(settings.precision, sampler.device)
        self.optimiser = MasterAdamW(objective, settings, torch.bfloat16 if short else None)
        if run.checkpoint.exists():
            self._resume()

    @property
    def fraction(self) -> float:
        """The part of the run that is done, 0 to 1."""
        by_time = self.elapsed / self.limit if self.limit else 0.0
        return min(1.0, max(self.step / self.settings.steps, by_time))

    def fit(self, context: Context) -> bool:
        """Train to the end, or until someone stops it; tell whether the end was reached.

        The state is saved at the end, on a stop, and every ``train.checkpoint_minutes``.

        Parameters
        ----------
        context : Context
            Is told how far the training is with every line of metrics, and asked before every step whether
            to stop.

        Raises
        ------
        VemsegError
            Where the training diverged; earlier checkpoints stay as they are.
        InputError
            Where several processes train together, and not all see the same checkpoint.
        """
        self.objective.train()
        if self.fraction < 1.0:
            self.sampler.prepare(context)
            context.report("training", self.fraction, f"step {self.step}")
        saved = time.monotonic()
        started = saved - self.elapsed
        last = (self.step, self.elapsed)
        stopped, furthest = ranks.largest(context.stopped(), self.step)
        if furthest > self.step:
            raise InputError(f"{self.run.path} is not the same for all processes: put it on a shared disk")
        while self.fraction < 1.0 and not stopped:
            for name, value in self._one_step().items():
                self._scalars.setdefault(name, []).append(value)
            stopped, self.elapsed = ranks.largest(context.stopped(), time.monotonic() - started)
            if self.step % self.settings.log_every == 0 or self.fraction >= 1.0:
                self._report(last, context)
                self._scalars, last = {}, (self.step, self.elapsed)
            if self.step % self.settings.picture_every == 0:
                self.draw()
            if self.settings.snapshot_every and self.step % self.settings.snapshot_every == 0:
                self._save_encoder(self.run.snapshot(self.step))
            if time.monotonic() - saved > self.settings.checkpoint_minutes * 60:
                self.save()
                saved = time.monotonic()
        self.save()
        ranks.wait()
        return self.fraction >= 1.0

    def _one_step(self) -> dict[str, Tensor]:
        """Draw a batch, compute the loss and update the weights; return the scalars, on the device."""
        lr = learning_rate(self.settings, self.fraction)
        batch = whole_batch(self.sampler, self.step, self.settings.batch)
        generator = step_generator(self.settings.seed, self.step)
        try:
            scalars: dict[str, Tensor] = self.objective(batch, generator)
            torch.autograd.backward(scalars["loss"])
        except torch.OutOfMemoryError:
            half = f"--batch-size {max(1, self.settings.batch // 2)}"
            raise ResourceError(f"GPU memory is not enough for this batch: try {half}, or -d cpu") from None
        ranks.average_gradients(self.optimiser.parameters)
        self.optimiser.step(lr)
        self.objective.after_step(self.fraction, generator)
        self.step += 1
        return {name: value.detach().float() for name, value in scalars.items()}

    def _report(self, last: tuple[int, float], context: Context) -> None:
        self._refuse_divergence(self._scalars["loss"])
        if not ranks.leads():
            return
        means = {name: float(torch.stack(values).mean()) for name, values in self._scalars.items()}
        rate = (self.step - last[0]) * self.settings.batch / max(self.elapsed - last[1], 1e-9)
        self.run.append_metrics(
            {
                "step": self.step,
                "samples": self.step * self.settings.batch,
                **means,
                "lr": learning_rate(self.settings, self.fraction),
                "seconds": round(self.elapsed, 2),
                "samples_per_second": round(rate, 2),
                **self._validated(),
            }
        )
        words = f"step {self.step}/{self.settings.steps}  loss {means['loss']:.4f}  {rate:.0f} samples/s"
        context.report("training", self.fraction, words)

    def _validated(self) -> dict[str, float]:
        """Return the mean scores on held-out data, or nothing where they are not due."""
        due = self.step % (VALIDATE_EVERY * self.settings.log_every) == 0 or self.fraction >= 1.0
        if self.held is None or not due:
            return {}
        self.objective.eval()
        with torch.no_grad():
            scores = [
                self.objective.validate(
                    self.held.batch(i, self.settings.batch), step_generator(self.settings.seed, i)
                )
                for i in range(VALIDATION_BATCHES)
            ]
        self.objective.train()
        means = {name: float(np.mean([score[name] for score in scores])) for name in scores[0]}
        return {f"held_{name}": value for name, value in self.objective.scores(means).items()}

    def _refuse_divergence(self, values: Iterable[Tensor]) -> None:
        """Stop where numbers are no longer finite, before any of them is written."""
        if not all(bool(value.isfinite().all()) for value in values):
            raise VemsegError(
                f"{self.run.path}: the training diverged before step {self.step} (loss or weights are not "
                f"finite): start again (-f) with train.lr below {self.settings.lr:g} or a longer train.warmup"
            )

    def save(self) -> None:
        """Write a checkpoint from which training resumes exactly, and the encoder as it is now."""
        if not ranks.leads():
            return
        self._refuse_divergence([*self._scalars.get("loss", ()), *self.optimiser.state().values()])
        held = {f"buffer.{name}": value for name, value in self._held()}
        tensors = {name: _to_numpy(value) for name, value in (self.optimiser.state() | held).items()}
        scalars = {name: [float(x) for x in values] for name, values in self._scalars.items()}
        progress = {"step": self.step, "seconds": self.elapsed, "scalars": scalars}
        save_tensors(self.run.checkpoint, tensors, progress)
        self._save_encoder(self.run.model)

    def _save_encoder(self, path: Path) -> None:
        if ranks.leads():
            save_encoder(path, self.objective, {"step": self.step})

    def _held(self) -> Iterator[tuple[str, Tensor]]:
        """Yield what the optimiser does not change: buffers and frozen parameters, with their names."""
        yield from self.objective.named_buffers()
        yield from ((name, p) for name, p in self.objective.named_parameters() if not p.requires_grad)

    def draw(self) -> None:
        """Draw the loss curve, the objective's own charts, and reconstructions of this step's samples."""
        batch = self.sampler.batch(self.step, self.settings.batch)  # by all: they make tissue together
        if not ranks.leads():
            return
        metrics = self.run.read_metrics()
        if metrics:
            steps, losses, lr = (np.array([m[key] for m in metrics]) for key in ("step", "loss", "lr"))
            self._keep(drawing.curve(steps, losses, SMOOTHING, lr), "curve.png")
            for name, scalars in self.objective.charts.items():
                self._draw_chart(name, scalars, metrics)
        if shown := self._preview(batch):
            seen, masked, made = (_to_numpy(p) for p in (shown.images, shown.masked, shown.predictions))
            self._keep(drawing.reconstructions(seen, masked, made), f"reconstruction-{self.step:07d}.png")

    def _draw_chart(self, name: str, scalars: Sequence[str], metrics: Sequence[Json]) -> None:
        """Draw scalars over the steps at which they were reported; nothing where they never were."""
        told = [m for m in metrics if all(scalar in m for scalar in scalars)]
        if told:
            steps = np.array([m["step"] for m in told])
            lines = {
                scalar.removeprefix(f"{name}_"): np.array([m[scalar] for m in told], np.float64)
                for scalar in scalars
            }
            self._keep(drawing.curve(steps, lines, 0.0, label=name), f"chart-{name}.png")

    def _keep(self, figure: drawing.Figure, name: str) -> None:
        drawing.save(figure, self.run.path / name)

    def _preview(self, batch: Batch) -> Preview | None:
        """Return reconstructions of some samples, or None where the objective has none."""
        self.objective.eval()
        shown = self.objective.preview(batch.first(PREVIEWS), step_generator(self.settings.seed, self.step))
        self.objective.train()
        return shown

    def _resume(self) -> None:
        arrays, state = load_tensors(self.run.checkpoint)
        tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
        held = list(self._held())
        if missing := [name for name, _ in held if f"buffer.{name}" not in tensors]:
            raise InputError(
                f"{self.run.checkpoint} lacks {missing[0]}: another version of vemseg wrote it; "
                "start again with -f"
            )
        self.optimiser.load(tensors)
        with torch.no_grad():
            for name, value in held:
                value.copy_(tensors[f"buffer.{name}"])
        self.step, self.elapsed = int(state["step"]), float(state["seconds"])
        device = self.sampler.device
        self._scalars = {
            name: [torch.tensor(value, device=device) for value in values]
            for name, values in state["scalars"].items()
        }
        if ranks.leads():
            self.run.truncate_metrics(self.step)


def _to_numpy(tensor: Tensor) -> NDArray[np.generic]:
    short = tensor.dtype in (torch.bfloat16, torch.float16)
    found: NDArray[np.generic] = (tensor.float() if short else tensor).detach().cpu().numpy()
    return found
