"""Network parts, losses and schedules that several pretext tasks share.

projector         MLP heads: projectors and predictors
momentum_encoder  moving average of a network (target, teacher or key encoder)
memory_bank       queue of vectors from earlier steps
prototypes        cosine classifier over learned clusters, and the cross-entropy between views
tokens            a vision transformer split into patches, positions and blocks, for masked prediction
decoder           decoders from the deepest map to an image
discriminator     tells real pictures from painted ones, and its loss
cross_channel     predict colour from lightness or the reverse: bins, head and loss
split_encoder     split an encoder into two independent halves of its channels
initialisation    data-dependent initialisation of weights
pooling           averages of maps over equal parts
losses            cross-entropy with unknown labels
schedules         cosine schedule
"""
