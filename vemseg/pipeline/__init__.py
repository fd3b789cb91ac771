"""One page for each verb, which opens, computes and writes; no method is known here by name.

    fetch      phantoms, BetaSeg, released weights
    train      volumes -> a run; adapt, self_train: the run of one volume, for ``segment --adapt``
    embed      volume + model -> stored vectors
    cluster    stored vectors -> classes
    segment    volume + model [+ classes] -> labels, QC picture, statistics; plan: what that would take;
               extras: what may be wanted besides labels; beside: the files beside labels
    refine     labels -> labels with classes merged, named and cleaned
    objects    labels -> every object by itself, and a table of them
    evaluate   labels + reference -> scores
    render     volume [+ labels + reference] -> pictures, surfaces, views in other programs
    report     labels + their image -> one HTML file

Functions take paths, settings and a ``Context``; none prints.
"""
