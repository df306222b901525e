"""The probes of this package, one module each; the module's name is the probe's name.

retrieval     nearest neighbours of the same class: precision@k, recall@k, mAP
nearest_fill  holes filled from the nearest picture: PSNR, L1, L2, SSIM
"""
