"""Operations of the namespace: plain functions over one transaction each."""
