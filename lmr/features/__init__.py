"""From photos to local features and global descriptors."""
