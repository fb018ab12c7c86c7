"""How far a fit can be trusted: posterior of the parameters, rows left out, the path of decays."""
