"""The downstream probes, one file each; the module's name is the probe's name.

linear        logistic regression on frozen features
knn           weighted k-nearest neighbours
svm           linear SVMs, full-shot and low-shot
low_shot      linear probe and fine-tuning on few labels
fine_tune     encoder and linear classifier, trained end to end
detection     Faster or Fast R-CNN
segmentation  fully convolutional network
robustness    the linear probe on corrupted images
label_free    rank, alignment and uniformity, without labels
"""
