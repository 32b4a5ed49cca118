"""The tensors of an adapter: its method (rank, scale, layers), names, shapes, initial values and updates.

Other rooms use `Method`, `read_method`, `check_tensors` and `weight_update`.
"""
