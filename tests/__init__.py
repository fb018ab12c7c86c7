"""The tests. As a package of its own, it is found before packages named tests in an environment."""
