"""The one home of every default of training. (A package, so that Hydra finds it by pkg://.)"""
