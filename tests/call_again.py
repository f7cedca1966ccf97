"""A recorder of steps that needs no GPU."""


def call_again(step):
    """Like a graph: leaves results where they were at first."""
    step()
    results = step()

    def replay():
        for place, result in zip(results, step(), strict=True):
            place.copy_(result)

    return replay, results
