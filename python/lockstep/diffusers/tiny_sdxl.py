"""A small SDXL: the real classes at small widths with seeded weights.

The pictures mean nothing, but they have structure, keep within the range of a picture, and depend
on seed and prompt.
"""

import json
import os

import torch

SEED = 20250712
PROMPT_GAIN = 6.0
OUTPUT_GAIN = 4.0


def _byte_alphabet() -> list[str]:
    """The 256 printable characters that stand for the bytes in byte-level CLIP vocabularies.

    Printable Latin-1 characters stand for themselves, the other bytes for the code points from 256.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + index) for index in range(len(others))]


def _write_tokenizer(folder: str) -> None:
    """Write a tokenizer without merges: each byte is a token, with another one for a word's last."""
    letters = _byte_alphabet()
    words = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    files = {
        "vocab.json": json.dumps({word: index for index, word in enumerate(words)}, ensure_ascii=False),
        "merges.txt": "#version: 0.2\n",
        "tokenizer_config.json": json.dumps(
            {
                "tokenizer_class": "CLIPTokenizer",
                "model_max_length": 77,
                "unk_token": "<|endoftext|>",
                "bos_token": "<|startoftext|>",
                "eos_token": "<|endoftext|>",
                "pad_token": "<|endoftext|>",
            },
            indent=2,
        ),
    }
    os.makedirs(folder)
    for name, text in files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)


VOCABULARY = 2 * 256 + 2
START, END = VOCABULARY - 2, VOCABULARY - 1


def _text_encoder(kind):
    from transformers import CLIPTextConfig

    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        projection_dim=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act="gelu",
        # Wider than the library's default: prompts shall move the picture.
        initializer_range=0.2,
        bos_token_id=START,
        eos_token_id=END,
        pad_token_id=END,
    )
    return kind(config)


def _unet(scale: int):
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32 * scale, 64 * scale),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        norm_num_groups=8,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        # Six time ids of 8 values each and the pooled text of 32.
        projection_class_embeddings_input_dim=6 * 8 + 32,
        # Both text encoders side by side.
        cross_attention_dim=64,
    )
    # Drawn as they are, the weights let the noise alone decide; the prompt shall be seen as well.
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if name.endswith("attn2.to_v.weight") or name.startswith("add_embedding.linear_2"):
                parameter.mul_(PROMPT_GAIN)
        unet.conv_out.weight.mul_(OUTPUT_GAIN)
    return unet


def _vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        # Four levels, as in the full size: one latent value stands for 8x8 pixels.
        block_out_channels=(16, 16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=0.13025,
        force_upcast=True,
    )


def write(folder: str, scale: int = 1) -> None:
    """Write the model into the empty folder `folder`; the same bytes each time.

    `scale` times as many channels in the U-Net: a scale of 16 is over 1 GiB, for measuring with.
    """
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        text_encoder = _text_encoder(CLIPTextModel)
        text_encoder_2 = _text_encoder(CLIPTextModelWithProjection)
        unet = _unet(scale)
        vae = _vae()
    tokenizers = {}
    for name in ("tokenizer", "tokenizer_2"):
        _write_tokenizer(os.path.join(folder, name))
        tokenizers[name] = CLIPTokenizer.from_pretrained(os.path.join(folder, name))
    pipe = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
        **tokenizers,
    )
    pipe.save_pretrained(folder, safe_serialization=True)
