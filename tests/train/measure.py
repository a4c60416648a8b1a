"""A measure of pictures for the feedback, named in a config as module:function."""


def brightness(picture):
    return float(picture.convert("L").resize((1, 1)).getpixel((0, 0)))
