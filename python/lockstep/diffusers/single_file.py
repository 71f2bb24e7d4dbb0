"""SDXL checkpoints in one file: their tensors under the names of the libraries' modules, without a copy.

The names of such files are those of the original training code. diffusers' own converters rename
them; where they would copy (the joined attention weights of the second text encoder, its
projection), views of the same memory take the copy's place.
"""

import torch

from .errors import DATA_LOSS, TaskFailed

CHECKPOINT = "checkpoint"

_ENCODER_1 = "conditioner.embedders.0.transformer."
_ENCODER_2 = "conditioner.embedders.1.model."
_PROJECTION = _ENCODER_2 + "text_projection"


def _second_encoder(tensors: dict[str, torch.Tensor], module) -> dict[str, torch.Tensor]:
    from diffusers.loaders.single_file_utils import DIFFUSERS_TO_LDM_MAPPING, convert_open_clip_checkpoint

    joined = {name: tensor for name, tensor in tensors.items() if ".attn.in_proj_" in name}
    plain = {name: tensor for name, tensor in tensors.items() if name not in joined and name != _PROJECTION}
    found = convert_open_clip_checkpoint(module, plain, prefix=_ENCODER_2)
    names = DIFFUSERS_TO_LDM_MAPPING["openclip"]["transformer"]
    for name, tensor in joined.items():
        stem, _, what = name.removeprefix(_ENCODER_2 + "transformer.").rpartition(".in_proj_")
        for new, old in names.items():
            stem = stem.replace(old, new)
        for part, rows in zip("qkv", tensor.chunk(3), strict=True):
            found[f"{stem}.{part}_proj.{what}"] = rows
    if _PROJECTION in tensors:
        found["text_projection.weight"] = tensors[_PROJECTION].T
    return found


def split(tensors: dict[str, torch.Tensor], modules: dict[str, torch.nn.Module]) -> dict[str, dict[str, torch.Tensor]]:
    """Return the tensors of each of `modules` (unet, vae, text_encoder, text_encoder_2) under diffusers' names.

    `modules` give the converters their configurations. Every tensor returned is a view of one given.
    Raises TaskFailed(data_loss) when the file's names are not those of such a checkpoint.
    """
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    try:
        return {
            "unet": convert_ldm_unet_checkpoint(tensors, dict(modules["unet"].config)),
            "vae": convert_ldm_vae_checkpoint(tensors, dict(modules["vae"].config)),
            "text_encoder": {
                name.removeprefix(_ENCODER_1): tensor
                for name, tensor in tensors.items()
                if name.startswith(_ENCODER_1)
            },
            "text_encoder_2": _second_encoder(
                {name: tensor for name, tensor in tensors.items() if name.startswith(_ENCODER_2)},
                modules["text_encoder_2"],
            ),
        }
    except (KeyError, IndexError, ValueError) as error:
        raise TaskFailed(DATA_LOSS, f"the checkpoint is not of the configuration's shape: {error}") from None
