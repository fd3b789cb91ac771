"""Volumes with reference labels: from published data sets, crops of OpenOrganelle, and the synthetic cell."""
