"""The run as a whole: its work list, its legs on Ray, `curate`. `cluster.py` alone knows Ray."""
