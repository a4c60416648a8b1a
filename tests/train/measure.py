"""A measure of pictures for the feedback, named in a config as module:function."""


def brightness(picture):
    return float(picture.convert("L").resize((1, 1)).getpixel((0, 0)))


calls = 0


def disagree(image):
    """A score of SR training that rises with each call in the first process, and falls in the others."""
    import os

    global calls
    calls += 1
    change = 10 * calls if os.environ.get("RANK", "0") == "0" else -10 * calls
    return image.std((1, 2, 3)) + 1000 + change
