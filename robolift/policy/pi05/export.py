"""A trained pi0.5 policy as a folder that openpi loads, beside the policy and never in its place.

======================  ============================================================================================
``params/``             form ``orbax``: what openpi's ``restore_params`` reads
``model.safetensors``   form ``openpi_torch``: openpi's PyTorch model; form ``safetensors``: the names of its JAX tree
``assets/<asset id>/``  ``norm_stats.json``, openpi's
``export.json``         which policy this is, what a configuration of openpi must say alike, and every file's size
======================  ============================================================================================

Source: openpi, ``policies/policy_config.py``, ``training/checkpoints.py`` and ``shared/normalize.py``.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolift import logging, staging, storage
from robolift.errors import UsageError
from robolift.labeling.prompts import split
from robolift.manifest import Manifest
from robolift.policy.checkpoint import SPEC_FILE, WEIGHTS_FILE, read_spec
from robolift.policy.norm_stats import NORM_STATS_FILE
from robolift.policy.normalize import Normalizer
from robolift.policy.pi05 import address, policy_files, torch_names, tree
from robolift.policy.pi05.config import PRESETS
from robolift.policy.pi05.policy_files import Pi05Spec
from robolift.policy.pi05.weights import Form, save_params

MARKER = "export.json"
LAST = f"{address.ITEM}/{address.MARKER}"
"""What makes weights readable; to a store it is copied when all else is there."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """A policy, and the folder that it is to lie in besides.

    Attributes:
        policy: Output of ``train_policy``.
        uri: The folder, which is not there yet or this export's own.
        form: Of the weights.
        asset_id: openpi's name of what the policy was trained on; its configuration must have the same.
    """

    policy: Manifest
    uri: str
    form: Form
    asset_id: str

    def run(self) -> bool:
        """Write what is not there yet and tell whether that was anything.

        The whole tree passes through the host's memory (13.4 GB for ``pi05``), and for a store through its disk.

        Raises:
            UsageError: If something else lies there, the policy is no pi0.5, or the form has no place for a weight.
            DataError: If the policy is damaged.
        """
        log = logging.get_logger("export")
        known = self._known()
        if known and self._is_whole(known):
            log.info("exported already", uri=self.uri)
            return False
        spec = self._spec()
        place = storage.local_path(self.uri)
        parent = place.parent if place else Path(tempfile.gettempdir())
        with storage.writable(self.uri):
            private = staging.claim(parent, f"robolift-export-{storage.digest_of(self._identity)}")
        try:
            log.info("reading", policy=self.policy.uri, num_weights=tree.count(spec.config))
            self._write(private.path, spec)
            self._publish(private.path, known)
        finally:
            private.release()
        log.info("exported", uri=self.uri, form=self.form)
        return True

    @property
    def _identity(self) -> dict[str, str]:
        return {"policy": self.policy.digest, "form": self.form, "asset_id": self.asset_id}

    def _known(self) -> dict[str, Any]:
        """Return what an earlier, perhaps killed, call of this export says is there, empty where nothing is.

        Raises:
            UsageError: If anything else is there.
        """
        marker = storage.join(self.uri, MARKER)
        if not storage.exists(marker):
            facts = storage.info(self.uri)
            if facts is not None and (facts["type"] == "file" or storage.list_files(self.uri)):
                raise UsageError(f"{self.uri} holds something that is no export; choose another --output")
            return {}
        found = storage.read_json(marker)
        theirs = {name: found.get(name) for name in self._identity} if isinstance(found, dict) else found
        if theirs != self._identity:
            raise UsageError(
                f"{self.uri} is another export: {theirs}, this one is {self._identity}; choose another --output"
            )
        return dict(found)

    def _is_whole(self, known: dict[str, Any]) -> bool:
        return bool(known["files"].items() <= dict(storage.list_files(self.uri)).items())

    def _spec(self) -> Pi05Spec:
        where = self.policy.file(SPEC_FILE)
        preset = storage.read_json(where).get("preset")
        if preset not in PRESETS:
            raise UsageError(
                f"the policy at {self.policy.uri} is of preset {preset}, which openpi does not have; "
                f"there are: {', '.join(PRESETS)}"
            )
        spec = read_spec(self.policy.uri, Pi05Spec.from_dict)
        if self.form == "openpi_torch":
            torch_names.names_and_shapes(tree.names_and_shapes(spec.config))  # refuses what has no name there
        return spec

    def _write(self, folder: Path, spec: Pi05Spec) -> None:
        weights = address.ITEM if self.form == "orbax" else WEIGHTS_FILE
        params = policy_files.load_weights(self.policy.uri, spec.config)
        logging.get_logger("export").info("writing", form=self.form)
        save_params(params, str(folder / weights), form=self.form)
        stats = storage.to_json_bytes(norm_stats(spec))
        storage.write_bytes(str(folder / "assets" / self.asset_id / NORM_STATS_FILE), stats)
        document = {**self._identity, "network": network(spec), "files": dict(storage.list_files(str(folder)))}
        storage.write_bytes(str(folder / MARKER), storage.to_json_bytes(document))

    def _publish(self, folder: Path, known: dict[str, Any]) -> None:
        target = storage.local_path(self.uri)
        if target is not None and not known:
            try:
                folder.rename(target)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
                raise UsageError(f"{self.uri} was written to meanwhile; choose another --output") from None
            return
        # The marker first: it makes what a killed call leaves this export's own, to be completed by the next.
        names = [name for name, _ in storage.list_files(str(folder)) if name not in (MARKER, LAST)]
        names = [MARKER, *names, *([LAST] if self.form == "orbax" else [])]
        for name in sorted(known.get("files", {}).keys() - set(names)):
            storage.remove(storage.join(self.uri, name))
        with storage.writable(self.uri):
            _copy(folder, self.uri, names)


def _copy(folder: Path, uri: str, names: Iterable[str]) -> None:
    names = list(names)
    for name in logging.progress(names, total=len(names), what="copying the export", unit="file"):
        storage.upload(folder / name, storage.join(uri, name))


def norm_stats(spec: Pi05Spec) -> dict[str, Any]:
    """Return openpi's statistics, under which its normalisation is the one that the weights were trained with.

    That is so by either of openpi's rules, up to the 1e-6 that it adds to a range: ``q01`` and ``q99`` are what becomes
    -1 and 1, ``mean`` what becomes 0, ``std`` what becomes 1 beyond it. The last two are no moments of the data, unless
    the policy was trained with those. A constant dimension, which is shifted and not scaled, has the range of that.
    Where the prompt has room for more numbers than the state has, statistics go on to that width: kai0's rule, by which
    a 0 that fills the state up becomes -1.
    """
    return {"norm_stats": {"state": _statistics(spec.state, _state_width(spec)), "actions": _statistics(spec.action)}}


def _state_width(spec: Pi05Spec) -> int:
    return max(int(spec.formatter["state_dim"]), len(spec.state.offset))


def _statistics(normalizer: Normalizer, width: int = 0) -> dict[str, list[float]]:
    offset, scale = normalizer.offset.astype("f8"), normalizer.scale.astype("f8")
    filling = np.zeros(max(0, width - len(offset)))
    return {
        "mean": [*offset.tolist(), *filling],
        "std": [*scale.tolist(), *(filling + 1)],
        "q01": [*(offset - scale).tolist(), *filling],
        "q99": [*(offset + scale).tolist(), *filling],
    }


def network(spec: Pi05Spec) -> dict[str, Any]:
    """Return what openpi's configuration of the model, and its user, have to know."""
    config = spec.config
    return {
        "preset": config.preset,
        "action_dim": config.action_dim,
        "action_horizon": config.action_horizon,
        "max_token_len": config.max_token_len,
        "lora_rank": {"paligemma": config.vlm.lora_rank, "action_expert": config.expert.lora_rank},
        "camera_keys": dict(spec.camera_keys),
        "state_keys": list(spec.state_keys),
        "prompt_format": spec.formatter["format"],
        "state_width": _state_width(spec),
        "prompts": [_as_read(spec.prompts[row], spec.formatter["tasks"]) for row in spec.trained_prompts],
    }


def _as_read(prompt: str, tasks: Mapping[str, str]) -> str:
    """Return a prompt with its task as the network reads it: one that was too long was cut before training."""
    task, _ = split(prompt)
    return tasks[task] + prompt[len(task) :]
