"""An adaptive model in a folder, or in a repository of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelCard, ModelHubMixin
from torch import nn

from foveal.adaptive import files
from foveal.adaptive.prepared import PreparedNetwork
from foveal.adaptive.spec import Specification
from foveal.calibration.profile import CalibrationProfile
from foveal.calibration.tuned import TunedSettings


class Saved(ModelHubMixin):
    """What is saved of a model, and made again from it.

    Attributes:
        prepared: The network with its preprocessing.
        spec: What is known about it.
        profile: What calibration found; None before.
        tuned: What `foveal tune` found; None before.
        small: The small network; None if there is none.
    """

    prepared: PreparedNetwork
    spec: Specification
    profile: CalibrationProfile | None
    tuned: TunedSettings | None
    small: Saved | None

    def save_pretrained(
        self, save_directory: str | Path, *, push_to_hub: bool = False, **options: Any
    ) -> str | None:
        """Write the model into a folder, every file whole or not at all; a page that people changed stays.

        Args:
            save_directory: The folder; made if absent.
            push_to_hub: Upload it as well.
            options: Of the upload: `repo_id`, by default the name of the folder, and as of `push_to_hub`.

        Returns:
            Address of the upload, if there was one.

        Raises:
            OSError: The folder cannot be written, or the disk is full; what was there is as it was.
        """
        self._save_pretrained(Path(save_directory))
        wanted = {"repo_id": Path(save_directory).name, **options}
        return self.push_to_hub(**wanted) if push_to_hub else None

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write weights, what is known about them, what calibration found, and the page."""
        files.save(save_directory, self.prepared, self.spec, self.profile, self.tuned)
        if self.small is not None:
            self.small._save_pretrained(save_directory / files.SMALL)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        network: nn.Module | None = None,
        small: nn.Module | None = None,
        trust_source: bool = False,
        **options: Any,
    ) -> Self:
        """Read what `save_pretrained` wrote.

        Args:
            pretrained_model_name_or_path: Folder, or repository OWNER/NAME of the Hugging Face Hub.
            network: The network, with any weights; made as the file says if None.
            small: The small network of the model, if it has one, in the same way.
            trust_source: Whether any function that the file names may be called to make the network; else
                only classes of known libraries.
            options: Those of huggingface_hub: revision, token, cache_dir, local_files_only, ...

        Raises:
            CheckpointError: There is no such folder, or one of its files is missing, damaged or another's.
            ValueError: The network cannot be made, and none was given.
        """
        files.check_name(pretrained_model_name_or_path)
        more: Any = {**options, "network": network, "small": small, "trust_source": trust_source}
        found: Self = super().from_pretrained(pretrained_model_name_or_path, **more)
        return found

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> Self:
        """Read what `save_pretrained` wrote, from a folder or a repository."""
        network, trusted = options.pop("network", None), options.pop("trust_source", False)
        given = options.pop("small", None)
        folder = files.find_folder(model_id, options)
        network, spec = files.load(folder, network, trusted)
        beside = folder / files.SMALL
        small = None
        if beside.is_dir():
            small = cls.from_pretrained(beside, network=given, trust_source=trusted)
        make: Any = cls
        model: Self = make(network, spec, small=small)
        model.profile = files.load_profile(folder, model.prepared, spec)
        model.tuned = files.load_tuned(folder, model.prepared, spec)
        return model

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Write the page that is shown beside the model."""
        return ModelCard(files.card_text(self.spec, self.profile))
