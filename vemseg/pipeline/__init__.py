"""The page: one module and one function per verb, each "open, compute, write"; no method by name.

    fetch        a phantom
    betaseg      ``fetch betaseg``: an archive -> volumes of cells; reference: masks -> labels
    importing    ``fetch weights --from``: a released checkpoint -> a run
    train        volumes -> a run
    features     ``embed``: volume + model -> features on their lattice; ``cluster``: features -> a labeller
    segment      volume + model [+ labeller] -> labels, QC picture, statistics
    evaluate     labels + reference -> scores
    render       volume [+ labels + reference] -> pictures

    common       opening inputs and models (all verbs)
    dense_input  a model laid over a volume, and samples of its vectors (embed, cluster, segment)
    resume       going on with an output that was begun, recognising one that is done (segment)
    outputs      what lies beside labels (segment)

Every function takes plain paths and settings, and callables for progress and for stopping; none prints.
"""
