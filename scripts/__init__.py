"""The programs of vlgraft, in a folder for each subject; `python scripts` lists them."""
