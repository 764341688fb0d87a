"""The steps of the job, a folder each; `stage.py` in it is the face that all have. A step knows no other step."""
