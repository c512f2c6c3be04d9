"""One module for each verb that measures: its settings are its command line."""
