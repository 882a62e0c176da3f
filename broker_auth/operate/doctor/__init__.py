"""Looks at the live deployment and says what is wrong with it, each finding with its remedy.

Read :mod:`.examine` first: which groups of checks there are, in which order. :mod:`.finding` is what they
return; :mod:`.probe` is how they look at a broker without a client library in between. Every check leaves
things as they were: connections it makes are refused or ended, messages it sends reach nobody.
"""
