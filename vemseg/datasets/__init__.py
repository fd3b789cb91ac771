"""Volumes with reference labels, of published data sets and of the synthetic cell; crops of stores."""
