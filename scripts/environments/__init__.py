"""The environments of the roles: built from hashed locks, or entered as one image."""
