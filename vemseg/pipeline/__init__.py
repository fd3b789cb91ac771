"""The page: one module for each verb, each "open, compute, write"; no method is known here by name.

    fetch      phantoms, BetaSeg, released weights
    train      volumes -> a run; adapt: the run of one volume, for ``segment --adapt``
    embed      volume + model -> stored vectors
    cluster    stored vectors -> classes
    segment    volume + model [+ classes] -> labels, QC picture, statistics; plan: what that would take;
               beside: what lies beside labels
    evaluate   labels + reference -> scores
    render     volume [+ labels + reference] -> pictures

Functions take paths, settings and a ``Context``; none prints.
"""
