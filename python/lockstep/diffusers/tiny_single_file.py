"""Writes a diffusers SDXL folder as one file: `python -m lockstep.diffusers.tiny_single_file FOLDER FILE`.

The file has the names of the original training code and the same numbers, so that a picture made
from it can be compared with one made from the folder.
"""

import argparse
import os
import re
import sys

import torch
from safetensors.torch import load_file, save_file

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", ".fc1.": ".c_fc.", ".fc2.": ".c_proj.", "self_attn": "attn"}


def _renamed(text: str, words: dict[str, str]) -> str:
    for old, new in words.items():
        text = text.replace(old, new)
    return text


def _unet(weights: dict[str, torch.Tensor], layers: int) -> dict[str, torch.Tensor]:
    from diffusers.loaders.single_file_utils import DIFFUSERS_TO_LDM_MAPPING

    mapping = DIFFUSERS_TO_LDM_MAPPING["unet"]
    plain = {**mapping["layers"], **mapping["addition_embed_type"]}
    attended = {match[1] for name in weights if (match := re.match(r"up_blocks\.(\d+)\.attentions", name))}
    out = {}
    for name, tensor in weights.items():
        if name in plain:
            new = plain[name]
        elif match := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name):
            side, block, what, layer, rest = match.groups()
            down = side == "down"
            place = int(block) * (layers + 1) + int(layer) + (1 if down else 0)
            rest = _renamed(rest, _RESNET) if what == "resnets" else rest
            new = f"{'input' if down else 'output'}_blocks.{place}.{0 if what == 'resnets' else 1}.{rest}"
        elif match := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.*)", name):
            new = f"input_blocks.{(int(match[1]) + 1) * (layers + 1)}.0.op.{match[2]}"
        elif match := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.conv\.(.*)", name):
            place = int(match[1]) * (layers + 1) + layers
            new = f"output_blocks.{place}.{2 if match[1] in attended else 1}.conv.{match[2]}"
        elif match := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name):
            what, index, rest = match.groups()
            resnet = what == "resnets"
            new = f"middle_block.{2 * int(index) if resnet else 1}.{_renamed(rest, _RESNET) if resnet else rest}"
        else:
            raise ValueError(f"no name for the tensor {name} of the unet")
        out["model.diffusion_model." + new] = tensor
    return out


def _vae(weights: dict[str, torch.Tensor], blocks: int) -> dict[str, torch.Tensor]:
    out = {}
    for name, tensor in weights.items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", new)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", new)
        new = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda m: f"up.{blocks - 1 - int(m[1])}.block.", new)
        new = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0\.", lambda m: f"up.{blocks - 1 - int(m[1])}.upsample.", new)
        new = re.sub(r"mid_block\.resnets\.(\d+)\.", lambda m: f"mid.block_{int(m[1]) + 1}.", new)
        if "mid_block.attentions.0." in new:
            new = _renamed(new.replace("mid_block.attentions.0.", "mid.attn_1."), _ATTENTION)
            if tensor.dim() == 2:
                tensor = tensor[:, :, None, None]
        out["first_stage_model." + new] = tensor
    return out


def _first_encoder(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    prefix = "conditioner.embedders.0.transformer.text_model."
    return {prefix + name.removeprefix("text_model."): tensor for name, tensor in weights.items()}


def _second_encoder(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    prefix = "conditioner.embedders.1.model."
    plain = {
        "embeddings.position_embedding.weight": "positional_embedding",
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "final_layer_norm.weight": "ln_final.weight",
        "final_layer_norm.bias": "ln_final.bias",
    }
    out = {}
    for name, tensor in weights.items():
        short = name.removeprefix("text_model.")
        if short == "text_projection.weight":
            out[prefix + "text_projection"] = tensor.T
        elif short in plain:
            out[prefix + plain[short]] = tensor
        elif short.startswith("encoder.layers."):
            if match := re.match(r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(.*)", short):
                parts = [weights[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
                out[f"{prefix}transformer.resblocks.{match[1]}.attn.in_proj_{match[2]}"] = torch.cat(parts)
            elif not re.search(r"\.[kv]_proj\.", short):
                new = _renamed(short.replace("encoder.layers.", "resblocks."), _CLIP)
                out[f"{prefix}transformer.{new}"] = tensor
    return out


def write(folder: str, file: str) -> int:
    """Write the SDXL model in the diffusers folder `folder` to `file` and return its bytes."""
    import json

    def part(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
        inside = os.path.join(folder, name)
        with open(os.path.join(inside, "config.json"), encoding="utf-8") as config:
            weights = [each for each in sorted(os.listdir(inside)) if each.endswith(".safetensors")]
            return json.load(config), {k: v for each in weights for k, v in load_file(os.path.join(inside, each)).items()}

    unet_config, unet = part("unet")
    vae_config, vae = part("vae")
    weights = {
        **_unet(unet, unet_config["layers_per_block"]),
        **_vae(vae, len(vae_config["up_block_types"])),
        **_first_encoder(part("text_encoder")[1]),
        **_second_encoder(part("text_encoder_2")[1]),
    }
    metadata = {"modelspec.architecture": "stable-diffusion-xl-v1-base"}
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, file, metadata)
    return os.path.getsize(file)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lockstep.diffusers.tiny_single_file", description=__doc__.split("\n")[0]
    )
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("file", metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        print(write(options.folder, options.file))
    except (OSError, ValueError) as error:
        print(f"cannot write {options.file}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
