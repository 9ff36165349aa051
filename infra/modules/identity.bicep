// Who the app is, wherever it signs in.

@description('The identity\'s name.')
param name string
@description('Where it is.')
param location string
@description('On every resource.')
param tags object

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: name
  location: location
  tags: tags
}

output id string = identity.id
output principalId string = identity.properties.principalId
output clientId string = identity.properties.clientId
