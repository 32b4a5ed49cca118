"""Merging: an adapter folded into its base in full precision, with a proof.

Other packages use `merge.merge_adapter` and `Merge`.
"""
