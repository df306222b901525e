"""Train an encoder by a pretext task.

loop           `train`: the training loop, read from top to bottom
config         TrainConfig: every setting of a run and its default
starting       the encoder that a run starts with, and what a task prepares
loading        batches in an order that depends on seed and step only
left_out       images that cannot be decoded: skipped or not, counted, reported
micro_batches  the parts of a batch: sizes and seeds
batch_statistics  batch normalisation by the images of all processes
optimisers     AdamW, Adam, SGD and the learning-rate schedule
run_folder     the run's folder: checkpoint, encoder file, `load_task`
run_state      how far a run has come, as its checkpoint stores it
stopwatch      the time that a run has taken, on the clock and on the processor
log            log.jsonl and the progress bar
collapse       spread and effective rank of the features
watching       k-NN accuracy or effective rank on a fixed part of the data, while the run goes on
flops          floating-point operations per image
tracking       TensorBoard or a user's own file as a sink of the log's lines
sample_sheets  PNG sheets of inputs and outputs
"""
