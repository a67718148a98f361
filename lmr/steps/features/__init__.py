"""Steps that extract local features and global descriptors."""
