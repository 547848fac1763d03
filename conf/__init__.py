"""The Hydra configuration of structkd, installed as the package structkd.conf."""
