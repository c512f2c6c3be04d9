"""One page about the results of a folder: answers, pictures, tables, and how each was made."""
