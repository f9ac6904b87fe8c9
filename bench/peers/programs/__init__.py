"""What runs in the contenders' own environments: nothing here may import Forebay."""
