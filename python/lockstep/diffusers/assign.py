"""Gives a module built without memory the tensors of a segment."""

import torch

from .errors import DATA_LOSS, INTERNAL, TaskFailed
from .segments import Segment

# Attention layers of older autoencoder files, by their last names.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _same(name: str) -> str:
    return name


def _without_text_model(name: str) -> str:
    return name.removeprefix("text_model.")


def _with_text_model(name: str) -> str:
    return "text_model." + name


def _new_attention(name: str) -> str:
    parts = name.split(".")
    if ".attentions." in name and len(parts) > 1:
        parts[-2] = _OLD_ATTENTION.get(parts[-2], parts[-2])
    return ".".join(parts)


# Spellings that releases of the libraries gave the same tensors, tried in this order.
_SPELLINGS = (_same, _without_text_model, _with_text_model, _new_attention)


def _match(module: torch.nn.Module, given: dict[str, torch.Tensor], what: str) -> dict[str, torch.Tensor]:
    """Return `given` under the module's own names; raises TaskFailed(data_loss) when they do not fit."""
    wanted = module.state_dict().keys()
    computed = {name for name, _ in module.named_buffers()} - wanted
    best = None
    for spelling in _SPELLINGS:
        # Some files carry buffers that today's classes compute themselves.
        renamed = {new: tensor for name, tensor in given.items() if (new := spelling(name)) not in computed}
        missing, surplus = sorted(wanted - renamed.keys()), sorted(renamed.keys() - wanted)
        if not missing and not surplus:
            return renamed
        if best is None or len(missing) + len(surplus) < len(best[0]) + len(best[1]):
            best = (missing, surplus)
    missing, surplus = best
    raise TaskFailed(
        DATA_LOSS,
        f"the weights of {what} do not fit its config: {len(missing)} tensors missing"
        f" (first: {missing[0] if missing else 'none'}), {len(surplus)} unknown"
        f" (first: {surplus[0] if surplus else 'none'})",
    )


def _rebuild_buffers(module: torch.nn.Module, device: str, what: str) -> None:
    """Compute the buffers that no file carries; raises TaskFailed(internal) for one we do not know."""
    for owner_name, owner in module.named_modules():
        for name, buffer in owner.named_buffers(recurse=False):
            if buffer.device.type != "meta":
                continue
            if name != "position_ids":
                raise TaskFailed(INTERNAL, f"{what} needs the buffer {owner_name}.{name}, which no file carries")
            positions = torch.arange(buffer.shape[-1], device=device).expand(buffer.shape)
            owner.register_buffer(name, positions, persistent=False)


def assign(
    module: torch.nn.Module,
    segment: Segment,
    device: str,
    what: str,
    tensors: dict[str, torch.Tensor] | None = None,
) -> torch.nn.Module:
    """Make the segment's tensors the parameters and buffers of `module`, without a copy.

    `module` was built on the meta device. `tensors` are views of the segment that belong to the
    module, when not all do. It comes back in eval mode with gradients off.
    Raises TaskFailed: data_loss when names or shapes differ from the module's, internal when
    something of the module would remain without memory or outside the segment.
    """
    weights = _match(module, segment.tensors(device) if tensors is None else tensors, what)
    try:
        module.load_state_dict(weights, strict=True, assign=True)
    except RuntimeError as error:
        raise TaskFailed(DATA_LOSS, f"the weights of {what} do not fit its config: {error}") from None
    _rebuild_buffers(module, device, what)
    for name, parameter in module.named_parameters():
        if parameter.numel() and not segment.contains(parameter):
            raise TaskFailed(INTERNAL, f"{what}.{name} is not a view of the segment")
    return module.eval().requires_grad_(False)
