"""Batched random transforms of images, on any device, drawn from a generator.

augmentation  one random view per image: crop, flip, colour, blur, solarize
crops         cut rectangles out of pictures and resize them
views         several views per image: two views, multi-crop
colour        sRGB and CIE Lab, and the grid of displayable ab colours
masks         the holes of inpainting: central, random blocks, random regions
grids         the 3×3 grids of tiles for relative location and jigsaw
"""
