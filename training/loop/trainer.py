"""Training on transformers' `Trainer`: its loop and callbacks, with this package's data, loss, groups and records."""

import logging
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from ...hub.card.model_card import write_card
from ...hub.push.publishing import publish
from ..optim.ema import weights_ema
from ..optim.master_weights import autocast_precision, with_master_weights
from ..recipe.run_files import METRICS
from ..runtime.precision import resolve_precision
from ..runtime.processes import on_cpu, on_cuda, process_state, shard_on_cpus
from ..runtime.progress import Reporter
from ..tasks.compilation import compilation, compile_layers
from ..tasks.task import TrainingTask
from .accelerate_loop import LoopResult
from .checkpoints import last_checkpoint, read_state
from .interruption import StopRequest
from .step import StepEnd
from .training_state import TrainingState

logger = logging.getLogger("vithub")


class HubTrainer(Trainer):
    """Trainer that gives the same losses, step by step, as `AccelerateLoop`, and resumes its checkpoints.

    Differs from `Trainer` by taking batches, loss, optimizer and schedule from the task, and by checkpoints that hold
    no pickle.

    Args:
        task: Training task.
        folder: Folder of the run; checkpoints are written below it.
        reporter: Receives the progress.
    """

    optimizer: Any
    lr_scheduler: Any

    def __init__(self, task: TrainingTask, folder: Path, reporter: Reporter) -> None:
        self.task, self.reporter, self.folder = task, reporter, folder / "checkpoints"
        settings = task.recipe.training
        self.precision = resolve_precision(settings.precision, process_state().device)
        checkpoint = last_checkpoint(self.folder)
        self.start = int(read_state(checkpoint)["step"]) if checkpoint else 0
        arguments = TrainingArguments(
            output_dir=str(self.folder),
            use_cpu=on_cpu(),
            ddp_find_unused_parameters=False,
            max_steps=task.total_steps,
            per_device_train_batch_size=task.batch_size // settings.accumulation // process_state().num_processes,
            gradient_accumulation_steps=settings.accumulation,
            max_grad_norm=settings.clip_norm or 0.0,
            torch_compile=compilation(task.recipe, task.model, process_state().device) == "whole",
            bf16=autocast_precision(settings, self.precision) == "bf16",
            fp16=self.precision == "fp16",
            seed=task.recipe.seed,
            remove_unused_columns=False,
            eval_strategy="no",
            save_strategy="no",
            logging_steps=1,
            report_to="none",  # the training state logs to the trackers
            disable_tqdm=True,
        )
        task.prepare(arguments.device, self.folder)
        super().__init__(model=task.learner, args=arguments, processing_class=task.image_processor)
        self.model_accepts_loss_kwargs = False  # the loss is a mean over a part: the loop divides by accumulation
        self.average = weights_ema(task.learner, settings, self.accelerator)
        if task.compiled == "layers":
            compile_layers(task.learner)
        self.remove_callback(PrinterCallback)
        self.request = StopRequest()
        self.add_callback(_RecordCallback(self))
        self.pieces: list[torch.Tensor] = []
        self.record: TrainingState | None = None
        self.step_end: StepEnd | None = None

    def run(self) -> LoopResult:
        """Trains to the end or to an early stop; the task's model then has the weights to publish."""
        steps = self.task.total_steps
        if self.start < steps:
            with tempfile.TemporaryDirectory() as folder, self.request:
                size = self.args.per_device_train_batch_size
                state = TrainerState(global_step=self.start, max_steps=steps, train_batch_size=size)
                state.save_to_json(str(Path(folder) / "trainer_state.json"))
                with suppress(_NothingLeftError):
                    self.train(resume_from_checkpoint=folder if self.start else None)
        else:
            self.create_optimizer()
            with self.request:
                self.open_record().catch_up(self.request)
        assert self.record is not None
        return LoopResult(self.record, self.accelerator, self.record.load_published(), self.precision, "trainer")

    def open_record(self) -> TrainingState:
        """Makes the training state and restores the last checkpoint."""
        inner = getattr(self.optimizer, "optimizer", self.optimizer)
        self.record = TrainingState(self.task, self.folder, self.accelerator, inner, self.reporter, self.average)
        self.record.restore()
        self.step_end = StepEnd(self.task, self.record, self.accelerator, self.reporter, self.request)
        return self.record

    def create_accelerator_and_postprocess(self) -> None:
        """Differs from `Trainer` by sharding on CPUs too, if the launch asks for it."""
        super().create_accelerator_and_postprocess()
        shard_on_cpus(self.accelerator)
        self.is_fsdp_enabled = getattr(self.accelerator.state, "fsdp_plugin", None) is not None

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Returns the task's batches for this process, one epoch at a time."""
        loader = self.task.epoch_loader(self.args.process_index, self.args.world_size)
        loader.set_epoch = loader.batch_sampler.set_epoch  # type: ignore[union-attr]
        return loader

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Returns the task's optimizer."""
        if self.optimizer is None:
            self.optimizer = self.task.optimizer()
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Returns the task's schedule, from the step where training starts."""
        if self.lr_scheduler is None:
            optimizer = optimizer or getattr(self.optimizer, "optimizer", self.optimizer)
            for group in optimizer.param_groups:
                group.pop("initial_lr", None)
            factor, start = self.task.schedule.factor, self.start
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(start + step))
        return self.lr_scheduler

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Differs from `Trainer` by preparing the parts of a step's batch together."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            self.task.prepare_step(batches)
        return batches, items

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Returns the task's loss."""
        settings = self.task.recipe.training
        return self.task.loss(with_master_weights(model, self.task.learner, settings, self.precision), inputs)

    def training_step(self, model: Any, inputs: dict[str, torch.Tensor], num_items_in_batch: Any = None) -> Any:
        """Differs from `Trainer` by recording the loss and the images."""
        _step_end(self).add_piece(inputs)
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.pieces.append(loss.detach())
        return loss

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Writes the run's own card from its measured results; the arguments of `Trainer` are ignored.

        Raises:
            FileNotFoundError: The run has not been evaluated yet, so that the card would have no content.
        """
        self._finished_run()
        write_card(self.folder.parent)

    def push_to_hub(
        self,
        commit_message: str | None = None,
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Publishes the run's folder as `vithub publish` does, with its card and without checkpoints.

        Args:
            commit_message: Message of the commit.
            blocking: Ignored; the method returns when all files are sent and read back.
            token: Access token; None takes `hub_token` of the training arguments, else the login or HF_TOKEN.
            revision: Branch to push to, made if it does not exist; None is main.
            **kwargs: `repo_id` ("user/name"; without it, `hub_model_id` of the training arguments), and other arguments
                of `publish`.
        """
        self._finished_run()
        repo_id = kwargs.pop("repo_id", None) or self.args.hub_model_id
        if repo_id is None:
            raise ValueError("`repo_id` is missing: name the repository as user/name")
        return publish(
            self.folder.parent, repo_id, message=commit_message, token=token or self.args.hub_token, revision=revision,
            **kwargs,
        )  # fmt: skip

    def _finished_run(self) -> None:
        if not (self.folder.parent / METRICS).is_file():
            raise FileNotFoundError(
                f"{self.folder.parent} has no {METRICS} yet: its card is written from it at the end"
            )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Does nothing: the training state restores this package's checkpoints when training begins."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Does nothing: the training state restores optimizer and schedule."""

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Does nothing: the training state restores the gradient scaler."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Does nothing: all random draws are made from the seed and the step."""


def check_one_device(processes: int) -> None:
    """Rejects several GPUs in one process, over which `Trainer` would divide each batch by `nn.DataParallel`.

    Args:
        processes: Number of processes of the run.

    Raises:
        ValueError: This process sees several GPUs, and no launcher gave each its process.
    """
    found = torch.cuda.device_count() if on_cuda() else 1
    if processes == 1 and found > 1:
        raise ValueError(
            f"the front end trainer trains on one GPU per process, and this process sees {found}: begin it with "
            f"`accelerate launch --num_processes {found}`, or show it one GPU (CUDA_VISIBLE_DEVICES=0)"
        )


class _NothingLeftError(Exception):
    """Raised if a resumed run had stopped early; `Trainer` checks `should_training_stop` only after a step."""


class _RecordCallback(TrainerCallback):
    """Callback that passes the ends of steps and epochs to the code shared by both loops."""

    def __init__(self, trainer: HubTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        record = self.trainer.open_record()
        record.catch_up(self.trainer.request)
        if record.stops_early():
            raise _NothingLeftError

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        first, per_epoch = state.global_step, self.trainer.task.steps_per_epoch
        epoch = first // per_epoch
        _step_end(self.trainer).begin_epoch(epoch, first, (epoch + 1) * per_epoch)

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        trainer, step = self.trainer, state.global_step
        if not _step_end(trainer).agree(step, torch.stack(trainer.pieces).sum(), trainer.task.schedule(step)):
            trainer.model.zero_grad(set_to_none=True)  # the optimizer skips parameters without a gradient

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        step, self.trainer.pieces = state.global_step - 1, []
        _step_end(self.trainer).end(step)

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        trainer = self.trainer
        entry = _step_end(trainer).end_epoch(state.global_step)
        trainer.log({name: value for name, value in entry.items() if name not in ("epoch", "step")})
        assert trainer.record is not None
        if trainer.record.stops_early():
            control.should_training_stop = True


def _step_end(trainer: HubTrainer) -> StepEnd:
    assert trainer.step_end is not None
    return trainer.step_end


__all__ = ["HubTrainer", "check_one_device"]
