"""What happens to a batch of pictures: augmentation, views, colour, masks, grids."""
