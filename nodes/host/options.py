"""Check values of inputs that ComfyUI does not check."""

from comfy_api.latest import io


def require_options(node: type[io.ComfyNode], **chosen: dict | None) -> None:
    """Refuse a value of a dynamic combo that is not one of its options.

    For such a value ComfyUI would run the node without this input and the inputs nested in it.
    """
    for combo in node.define_schema().inputs:
        if combo.id not in chosen:
            continue
        options = [option.key for option in combo.options]
        value = chosen[combo.id]
        if not isinstance(value, dict) or value.get(combo.id) not in options:
            listed = ", ".join(f'"{option}"' for option in options[:-1])
            raise ValueError(
                f'{combo.id} must be {listed} or "{options[-1]}", but it is missing, linked or unknown. '
                f"Choose one on the node; in an API prompt give it as {combo.id}, and the inputs of the "
                f"option as {combo.id}.NAME"
            )


def validate_options(node: type[io.ComfyNode], **chosen: dict | None) -> bool | str:
    """Check as ``require_options`` does, with the result that ``validate_inputs`` of a node returns."""
    try:
        require_options(node, **chosen)
    except ValueError as error:
        return str(error)
    return True


def require_range(name: str, value: float, minimum: float, maximum: float, unit: str = "") -> None:
    """Refuse a linked value outside a widget's limits: ComfyUI checks only typed values."""
    if not minimum <= value <= maximum:
        raise ValueError(f"{name} must be {minimum} to {maximum}{unit}, got {value:g}")


def require_choice(name: str, value: str, choices: list[str]) -> None:
    """Refuse a linked value that is not among a combo's: ComfyUI checks only chosen values."""
    if value not in choices:
        listed = ", ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f'{name} must be one of {listed}, got "{value}"')
