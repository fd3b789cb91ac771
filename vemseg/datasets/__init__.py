"""Volumes with reference labels, as files.

betaseg        cells of BetaSeg, from its archive
reference      masks of organelles -> reference labels
openorganelle  crops of OpenOrganelle's volumes
phantom        the synthetic cell
"""
