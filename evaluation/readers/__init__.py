"""Data sets for the evaluation of captions, each as it is published: photos with reference captions."""
