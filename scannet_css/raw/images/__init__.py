"""Raw images, one reader a data set, and what they share."""
