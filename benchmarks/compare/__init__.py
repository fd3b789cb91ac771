"""Any list of systems on any list of volumes, with equal budgets, seeds and protocols: one table of them all.

    systems.toml, systems.py          the systems by name: what is trained, from what, and how it is scored
    settings.toml                     lists of systems, volumes and budgets by name: smoke, cpu, gpu
    experiments.toml, experiments.py  the tables of the papers, by name, and what differs from the papers
    places.py                         the volumes: what is scored, and what trainings learn from
    plan.py                           what is to be done: trainings and scorings, and which needs which
    work.py                           how each of them is done, in a process of its own
    schedule.py                       several at a time, until the end, a limit of time or a signal
    scoring.py                        a cell: one system, volume and seed, counted for each K and seed
    tables.py, details.py, pictures.py  what is written of the cells that are there

Trainings are commands of vemseg, as a user writes them.
"""
