"""Measure how well a decoder fills holes.

measuring  L1, L2, PSNR, SSIM, sharpness and seam of fills, on held-out images
baselines  fills without training: mean colour and linear interpolation
command    `python -m pretext inpaint`: a sheet and a table of the fills
"""
